"""`python -m answering.generators.openvino_saving FOLDER`: its GGUF file as OpenVINO loads it.

Converting a GGUF takes twice the time of loading the result, each time, and twice the memory; so it
is done once, in a process of its own. The tokenizer is the one that training uses.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

GGUF_FILE = "model.gguf"


def main() -> int:
    """Write `openvino_model.xml`, its weights and `tokenizer.json` beside the file."""
    import openvino_genai
    from transformers import AutoTokenizer

    folder = Path(sys.argv[1])
    scheduling = openvino_genai.SchedulerConfig()
    scheduling.num_kv_blocks = 16
    openvino_genai.ContinuousBatchingPipeline(
        str(folder / GGUF_FILE), scheduling, "CPU", {"enable_save_ov_model": True}
    )
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=GGUF_FILE)
    tokenizer.save_pretrained(str(folder))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the runtime's threads need no goodbye
