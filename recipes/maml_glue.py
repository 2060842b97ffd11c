"""First-order MAML over LoRA on GLUE, tested on the few-shot tasks of LEOPARD.

    accelerate launch recipes/maml_glue.py --model minilm --data DATA/glue --test DATA/leopard --max-minutes 20
    torchrun --standalone --nproc_per_node 2 recipes/maml_glue.py --model minilm --data mini --test mini --steps 100

Every option has its sentence under --help. Validation tasks are GLUE's RTE and MRPC, which then do not teach, and five
of `mini`.
"""

from pathlib import Path

from metanlp.cli.launch import launch
from metanlp.experiment.options import Experiment

DEFAULTS = Experiment(data="glue", test="leopard", out=Path("out/maml_glue"))

if __name__ == "__main__":
    launch(DEFAULTS)
