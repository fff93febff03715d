"""Members of a shard's tar: only a block's plain files, found by their headers."""

import io
import tarfile

import numpy as np
import pytest

from data_shards.storage.tar_format import BrokenTar, Member, member_header, members, npy_bytes, npy_payload, padding


def tar_of(*infos: tarfile.TarInfo, content: bytes = b"") -> np.ndarray:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info in infos:
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))
    return np.frombuffer(target.getvalue(), np.uint8)


def test_members_are_found_where_tarfile_put_them():
    tar = tar_of(tarfile.TarInfo("000000-00000.json"), tarfile.TarInfo("000000-00000.tokens.npy"), content=b"12345")
    assert list(members(tar)) == [Member("000000-00000", "json", 512, 517), Member("000000-00000", "tokens.npy", 1536, 1541)]


def test_what_is_written_is_read_by_tarfile_and_has_no_owner_and_no_date():
    content = member_header("000000-00000.json", 5) + b"12345" + padding(5) + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        (info,) = tar.getmembers()
        assert (info.name, info.size, info.mtime, info.uid, info.uname) == ("000000-00000.json", 5, 0, 0, "")
        assert tar.extractfile(info).read() == b"12345"


@pytest.mark.parametrize("name", ["/000000-00000.json", "../000000-00000.json", "other.txt", "000000-00000.pickle"])
def test_a_member_of_another_name_is_refused(name):
    with pytest.raises(BrokenTar, match="not a block's plain file"):
        list(members(tar_of(tarfile.TarInfo(name))))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_link_device_or_folder_is_refused(kind):
    info = tarfile.TarInfo("000000-00000.json")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(BrokenTar, match="not a block's plain file"):
        list(members(tar_of(info)))


def test_a_tar_that_ends_too_early_or_has_a_broken_header_says_so():
    tar = tar_of(tarfile.TarInfo("000000-00000.json"), content=b"x" * 600)
    with pytest.raises(BrokenTar, match=r"ends too early, inside 000000-00000\.json"):
        list(members(tar[:1000]))
    with pytest.raises(BrokenTar, match="ends too early"):
        list(members(tar[:100]))
    broken = tar.copy()
    broken[3] ^= 1
    with pytest.raises(BrokenTar, match="a broken header at byte 0"):
        list(members(broken))


def payload_of(content: bytes, count: int = 5) -> int:
    return npy_payload(np.frombuffer(content, np.uint8), Member("k", "tokens.npy", 0, len(content)), np.dtype("<u2"), count)


def test_the_numbers_of_an_npy_member_are_found_where_numpy_put_them():
    content = io.BytesIO()
    np.save(content, np.arange(5, dtype="<u2"))
    assert npy_bytes(np.arange(5, dtype="<u2")) == content.getvalue()
    assert payload_of(content.getvalue()) == len(content.getvalue()) - 10


def test_a_pickled_or_other_array_is_refused():
    pickled = io.BytesIO()
    np.lib.format.write_array(pickled, np.array([{}], object), version=(1, 0), allow_pickle=True)
    square = io.BytesIO()
    np.save(square, np.zeros((1, 5), "<u2"))
    good = npy_bytes(np.arange(5, dtype="<u2"))
    others = [
        pickled.getvalue(),
        square.getvalue(),
        npy_bytes(np.arange(5, dtype="<u4")),
        good[:-2],
        good + b"  ",
        b"not an npy file at all",
        b"",
    ]
    for content in others:
        with pytest.raises(BrokenTar, match=r"k\.tokens\.npy that does not hold 5 numbers of uint16 in one dimension"):
            payload_of(content)
    with pytest.raises(BrokenTar):
        payload_of(good, count=6)


def test_every_flipped_bit_of_a_header_is_refused():
    good = npy_bytes(np.arange(5, dtype="<u2"))
    for bit in range(8 * (len(good) - 10)):
        broken = bytearray(good)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BrokenTar):
            payload_of(bytes(broken))
