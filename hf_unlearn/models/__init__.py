"""What is done to a model beside training it: adapters, noise on its inputs."""
