"""The nodes that share a namespace: leases, leader election, reports, the recovery barrier."""
