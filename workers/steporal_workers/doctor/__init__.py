"""``steporal doctor``: checks the server, the namespace, the workers and the app of an installation."""
