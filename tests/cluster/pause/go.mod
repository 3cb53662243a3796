module injector.test/pause

go 1.26
