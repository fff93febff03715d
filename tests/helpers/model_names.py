"""Names of models that the fixture `make_model` makes."""

FIRST = ("bert", "distilbert", "roberta")
OTHERS = (
    "xlm-roberta",
    "camembert",
    "electra",
    "electra of one width",
    "mpnet",
    "deberta-v2",
    "deberta-v3",
    "deberta of its own keys",
    "deberta with positions",
    "modernbert",
    "modernbert with biases",
    "albert",
)
