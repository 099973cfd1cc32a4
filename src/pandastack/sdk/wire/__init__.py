"""How API calls are written and answers are read; shared by the client and the tools for agents."""
