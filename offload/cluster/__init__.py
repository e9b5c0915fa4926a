"""AgentRuns in Kubernetes. The only room that knows the Kubernetes API."""
