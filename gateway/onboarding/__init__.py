"""What a hospital that joins needs: what its samples and its menu say, turned into what a person then approves.

Nothing here runs when a message is converted: a candidate is a proposal, and only a row that a person has put into
``codes.csv`` maps a code.

samples.py      a folder of samples as messages
habits.py       how a hospital speaks, read off its messages                   pure
manifest.py     the manifest that these habits suggest                         pure
codes.py        its own codes: gathered, proposed, approved                    pure
images.py       what sample DICOM objects say
scaffold.py     the folder of a new hospital; its examples
pseudonyms.py   messages with invented patients                                pure
explain.py      why a message is refused, hl7apy's judgement, what to do
profile.py      what a hospital's messages use                                 pure
drift.py        what differs from a profile                                    pure
menu.py         a menu as text, candidates as text                             pure
suggest.py      suggest(): candidates of the catalogue for the rows of a menu
laboratory.py   tests: by every name, unit and specimen
exams.py        exams: modality, part, contrast and view, word by word
names.py        how a name is spelt, taken away; measures.py: units and specimens; words.py: the tables of words
"""
