"""``steporal doctor``: whether an installation is right: the server, the namespace, the workers, and the app in it."""
