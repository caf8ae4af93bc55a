"""The verbs of `sslrun`, one file each: EXAMPLE, add_arguments(parser) and run(options) -> exit code.

The docstring of `run` is the verb's help. A verb imports what it needs in its functions: `--help` stays instant.
"""
