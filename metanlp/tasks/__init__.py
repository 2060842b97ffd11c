"""Where tasks come from: files and folders, GLUE, LEOPARD, and the set that ships with metanlp."""
