def compile_expression(s, allow_async=True):
    raise NotImplementedError
