module example.com/pail-client

go 1.25.0
