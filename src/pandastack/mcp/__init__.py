"""Tools for agents, by the Model Context Protocol (https://modelcontextprotocol.io).

A tool is a request of the public API with a name, a description and arguments (:mod:`pandastack.mcp.tools`); its
result is the API's answer, cut to what a model can read (:mod:`pandastack.mcp.answers`). Two faces offer the same
tools: the command line over stdin and stdout, and the API over HTTP.
"""
