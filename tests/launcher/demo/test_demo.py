"""The demo says which of its steps runs."""

import inspect
import re

from launcher.demo import demo


def test_each_step_of_the_demo_has_a_number_of_its_own():
    numbers = re.findall(r'"(\d)/(\d) ', inspect.getsource(demo))
    assert numbers == [(str(number), "7") for number in range(1, 8)]
