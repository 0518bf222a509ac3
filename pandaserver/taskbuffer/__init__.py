"""The TaskBuffer: jobs, files, datasets and work on a transactional database. The only room that imports sqlalchemy."""
