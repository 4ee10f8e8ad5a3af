#!/bin/sh
# What OpenPBS and PBS Professional know of a job, in the words that Snakemake understands: running, success or failed.
# A server that does not answer says nothing of the job, which then counts as running until it does.
told=$(qstat -x -f "$1" 2>&1) || case $told in
    *[Uu]nknown*) echo failed; exit 0 ;;  # forgotten (job_history_enable is off) or never there
    *) echo running; exit 0 ;;
esac
case $told in
    *"job_state = F"*) ;;
    *) echo running; exit 0 ;;
esac
case $told in
    *"Exit_status = 0"*) echo success ;;
    *) echo failed ;;
esac
