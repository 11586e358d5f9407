"""The official Python client, reading an organization whole: every project, its certificates, and the organization's own.

    python3 -m venv venv && venv/bin/pip install openai
    CERTVIGIL_BENCH_PYTHON=venv/bin/python cargo bench --bench scan -- python
"""

import sys

import openai

client = openai.OpenAI(api_key="x", admin_api_key="sk-admin-bench", base_url=f"http://{sys.argv[1]}/v1")
organization = client.admin.organization
certificates = sum(1 for _ in organization.certificates.list(limit=100))
keys = sum(1 for _ in organization.admin_api_keys.list(limit=100))
for project in organization.projects.list(limit=100):
    certificates += sum(1 for _ in organization.projects.certificates.list(project.id, limit=100))
print(certificates, keys)
