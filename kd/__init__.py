"""The science: tensors in, losses and students out. Knows no file format of the corpus; imports nothing of launcher or data_shards."""

import logging

# DeepSpeed warns at import that it will use the CPU. Where there is no GPU that is what is wanted; `stillhouse train` says what it runs on.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
