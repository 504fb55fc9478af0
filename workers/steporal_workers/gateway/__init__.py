"""HTTP gateway: Inngest's event API and a part of its REST API, in front of Temporal."""
