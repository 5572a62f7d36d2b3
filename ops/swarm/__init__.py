"""What programs for a Docker Swarm share."""
