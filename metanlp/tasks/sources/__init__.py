"""Sets of tasks by name: GLUE, LEOPARD, mini, the Hub."""
