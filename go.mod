module github.com/keystile/keystile

go 1.26.0

require (
	github.com/stretchr/testify v1.12.1 // indirect
	go4.org/netipx v0.0.0-20260823151212-3075585bcbeb // indirect
	golang.org/x/time v0.16.0 // indirect
)
