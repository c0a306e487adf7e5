"""How a checkpoint is made: corpora, span corruption, training, the toy community."""
