module fanout

go 1.25

require github.com/centrifugal/centrifuge v0.40.1
