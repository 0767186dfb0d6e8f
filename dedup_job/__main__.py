"""`python -m dedup_job` is the same as `dedup-job`."""

from dedup_job.cli import run_and_exit

if __name__ == "__main__":
    run_and_exit()
