"""Files that several processes write at the same time."""

import subprocess
import sys
from pathlib import Path

WRITER = """
import sys
from pathlib import Path
from stillhouse.files import write_atomically
while not Path(sys.argv[1]).with_name("go").exists():
    pass
for _ in range(1000):
    write_atomically(Path(sys.argv[1]), sys.argv[2] * 10_000, sync=False, shared=True)
"""


def test_processes_that_write_one_file_neither_fail_nor_mix_their_contents(tmp_path: Path):
    file = tmp_path / "outputs"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), letter], cwd=Path(__file__).parents[2]) for letter in "ab"]
    (tmp_path / "go").touch()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert file.read_text() in ("a" * 10_000, "b" * 10_000)
    assert {path.name for path in tmp_path.iterdir()} == {"go", "outputs"}
