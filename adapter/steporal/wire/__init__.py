"""What Temporal's histories hold of Steporal, and what processes of different versions say to each other."""
