"""Calls as a provider's batch jobs: at about half the price, within a day.

`desk.py` decides what becomes of a call, `dispatch.py` sends jobs and fetches what came of them, `job_file.py` keeps
both on disk and `job_store.py` has all machines keep the same; for each provider one file says how its API puts that.
No stage knows of any of it.
"""
