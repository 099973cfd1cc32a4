"""The public API's bodies and answers, a module per noun.

An answer's model is also its renderer: routes make it with ``of`` from what the services return, and the documentation
shows the same class. There is no second description of an answer that could differ.
"""
