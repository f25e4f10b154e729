"""What goes to nodes as a list, what may become a node's list, and who on it is nearest.

bundle       the signed head: who made the list, for whom, until when
pieces       the body: index and templates, cut and sealed piece by piece
build        subjects and templates become head and pieces; files keeps them as LIST.bundle
stamp        the controller's signed word: open, go on, close, wipe; freshness without a clock
grant        the content key, sealed to one boot of one node
admission    the checks that an offer must pass, in their order
opening      pieces become open templates, in secret memory alone
trusted      the door: what is in use, what may take its place, when it ends
columns      the exhaustive search; match makes a Match of what it finds
calibration  from a tolerable false-alert rate to a threshold

Decision: pieces are sealed one by one, not the body as a whole. Context: a list of 100,000
templates has 40 MB, a node has little memory, a link is cut. Options: one AEAD over the body; one
per piece with a signed list of digests. Choice: pieces; each can be fetched from anywhere, checked
before it is opened, and opened straight into its place. Cost: 32 bytes of digest per 128 KiB.
"""
