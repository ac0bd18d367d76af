#!/bin/bash
# A job that may be cut off at any time and goes on where it was: sbatch examples/slurm.sh
#
# Two minutes before its time is up, or when the machine is wanted for something else, Slurm sends SIGUSR1 (or SIGTERM).
# The fit then finishes its batch, writes its checkpoint, and ends by minifast's `Preempted`, with exit status 143. The
# job is put into the queue again, and train.py, which names the same checkpoint each time, goes on at the next batch:
#
#     learn.fit_one_cycle(90, 1e-2, checkpoint="run1")
#
#SBATCH --job-name=train
#SBATCH --time=04:00:00
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --signal=USR1@120
#SBATCH --open-mode=append

srun python train.py
status=$?
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
