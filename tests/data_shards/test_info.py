"""info: counts, lengths, coverage and samples of a folder whose content is known."""

from data_shards.info import info


def test_the_facts_of_a_known_folder(tmp_path, make_shards):
    make_shards(tmp_path, [[10], [11, 12, 13], [1, 10, 610]], [[30, 31]])
    facts = info(tmp_path, samples=2)
    train = facts.splits["train"]
    assert (train.documents, train.tokens, train.shards) == (3, 7, 1)
    assert train.mean_length == 7 / 3
    assert train.length_percentiles == {0: 1, 5: 1, 25: 1, 50: 3, 75: 3, 95: 3, 100: 3}
    assert train.samples == ("w10", "[UNK] w10w610")
    assert facts.splits["heldout"].samples == ("w30 w31",)
    assert (facts.vocabulary_size, facts.vocabulary_used) == (700, 6)
    assert facts.unknown_share == 1 / 7


def test_a_folder_without_held_out_documents_has_one_split(tmp_path, make_shards):
    make_shards(tmp_path, [[10]])
    assert list(info(tmp_path).splits) == ["train"]
