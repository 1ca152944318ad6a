"""Where a verb runs: `./launch.sh --on=local|slurm|tpu [settings] VERB ...`."""
