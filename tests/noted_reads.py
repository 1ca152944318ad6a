"""mmjax in this process, noting which training examples it reads: FILE SECONDS FAIL_AT, then its arguments.

Each line of FILE is the number and the identity of an example. Reading one takes SECONDS longer, so that
a test has time to interrupt, and the example number FAIL_AT (-1: none) cannot be read.
"""

import sys
import threading
import time

from mmjax import __main__ as program
from mmjax.data import pipeline
from mmjax.errors import DataError


def main(file, seconds, fail_at, *arguments):
    read, lock = pipeline._Examples.__call__, threading.Lock()

    def noted(self, position):
        example = read(self, position)
        if self.order is not None:  # else it is evaluation data
            number = self.rows.number(int(position))
            with lock, open(file, "a") as notes:
                notes.write(f"{number} {int(example['example_id'])}\n")
            time.sleep(float(seconds))
            if number == int(fail_at):
                raise DataError(f"example number {number} is broken")
        return example

    pipeline._Examples.__call__ = noted
    sys.argv = ["mmjax", *arguments]
    program.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
