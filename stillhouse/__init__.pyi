from kd.terms.attention import AttentionKL as AttentionKL
from kd.terms.attention import AttentionMSE as AttentionMSE
from kd.terms.attention import Relations as Relations
from kd.terms.documents import Contrastive as Contrastive
from kd.terms.documents import RelationalAngle as RelationalAngle
from kd.terms.documents import RelationalDistance as RelationalDistance
from kd.terms.documents import Similarity as Similarity
from kd.terms.hidden import EmbeddingMSE as EmbeddingMSE
from kd.terms.hidden import HiddenCosine as HiddenCosine
from kd.terms.hidden import HiddenMSE as HiddenMSE
from kd.terms.hidden import Hints as Hints
from kd.terms.hidden import Patient as Patient
from kd.terms.logits import LogitMSE as LogitMSE
from kd.terms.logits import MaskedLM as MaskedLM
from kd.terms.logits import SoftTargets as SoftTargets
from kd.terms.views import LogitView as LogitView
from kd.terms.views import TokenView as TokenView
from launcher.api import build_shards as build_shards
from launcher.api import evaluate as evaluate
from launcher.api import load_model as load_model
from launcher.api import make_student as make_student
from launcher.api import train as train
from launcher.config.load import load_config as load_config
from stillhouse.errors import StillhouseError as StillhouseError

NAMES: dict[str, str]
