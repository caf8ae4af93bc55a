"""On PYTHONPATH, this has the data of some ranks come late.

SSLRUN_TEST_SLOW={"where": {"RANK": "2"}, "seconds": 0.1}: so much later for each batch, on ranks in whose environment
these variables have these values.
"""

import importlib.abc
import importlib.util
import json
import os
import sys
import time

ORDER = json.loads(os.environ.get("SSLRUN_TEST_SLOW", "null"))


class Late(importlib.abc.MetaPathFinder):
    """Wraps what the trainers' batches come from."""

    def find_spec(self, name, path, target=None):
        if name != "methods.engine.loading":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            batches = module.batches

            def late(*arguments, **named):
                for batch in batches(*arguments, **named):
                    time.sleep(ORDER["seconds"])
                    yield batch

            module.batches = late

        spec.loader.exec_module = exec_module
        return spec


if ORDER and ORDER["where"].items() <= os.environ.items():
    sys.meta_path.insert(0, Late())
