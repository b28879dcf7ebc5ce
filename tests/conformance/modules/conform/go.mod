module cricket.example/conformance/conform

go 1.26.0
