"""From media files to arrays.

`container` opens a file and chooses one of its streams, `video` reads frames and `audio` reads
sound from it, `log_mel` turns sound into log-mel spectra, and `guarded` reads untrusted files in a
process of their own.
"""
