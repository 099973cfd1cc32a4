"""The public API's bodies and answers, one module per noun.

An answer's model is also its renderer: routes build it with ``of`` from the services' results, and the documentation
shows the same class. No second description of an answer could differ.
"""
