"""What a hospital that joins needs: what its samples and its menu say, turned into what a person then approves.

Nothing here runs when a message is converted: a candidate is a proposal, and only a row that a person has put into
``codes.csv`` maps a code.

menu.py         a menu as text, candidates as text                             pure
suggest.py      suggest(): candidates of the catalogue for the rows of a menu          pure
"""
