"""python with_hydra.py --multirun hydra/launcher=submitit_slurm ... +folder=...        the plain job as a Hydra app.

Its options are those of plain.Options. It goes on from the newest save when the launcher has it started again.
"""

import hydra
from omegaconf import DictConfig
from plain import Options, Training


@hydra.main(version_base=None)
def main(config: DictConfig) -> None:
    Training(Options(**config)).run()


if __name__ == "__main__":
    main()
