"""What this machine's administrator and user say: homes, logins, certificates, policy.json, storage.conf."""
