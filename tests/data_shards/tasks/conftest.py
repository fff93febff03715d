"""Task files made by hand, with the quirks of the official ones."""

from pathlib import Path

import pytest

from data_shards.tasks.settings import TaskDataSettings
from data_shards.tasks.splits import TaskData, read_task

MRPC = (
    "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    '1\t10\t11\tHe said " the deal is done .\tThe deal is done , he said .\n'
    '0\t12\t13\t" It rained .\tIt \u2028snowed " there .\n'
    "1\t14\t15\tTwo men won .\tTwo men were winners .\n"
)
COLA = "gj04\t1\t\tThe car honked down the road.\ngj04\t0\t*\tThe car honked the road down.\ncj99\t1\t\tBirds sing."


@pytest.fixture
def write(tmp_path):
    """write(name, content) -> path of a file with this text or these bytes."""

    def make(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return make


@pytest.fixture
def mrpc(write) -> str:
    """A folder with MRPC's files: a byte order mark, quotes that are text, and a line separator inside a field."""
    write("MRPC/train.tsv", MRPC)
    return str(Path(write("MRPC/dev.tsv", MRPC.splitlines(keepends=True)[0] + "0\t1\t2\tA cat .\tA dog .\n")).parent)


@pytest.fixture
def cola(write) -> str:
    """A folder with CoLA's files: no header, and no line end at the end."""
    write("CoLA/train.tsv", COLA)
    return str(Path(write("CoLA/dev.tsv", "gj04\t1\t\tBirds sing.\ngj04\t0\t*\tSing birds the.")).parent)


@pytest.fixture
def read():
    """read(**settings) -> the data of a task."""

    def make(**settings) -> TaskData:
        return read_task(TaskDataSettings(**settings))

    return make
