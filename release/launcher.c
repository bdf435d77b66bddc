/*
 * bin/layertee of the self-contained tree: starts the Python beside it with
 * the package.  It needs no shell, works wherever the tree lies and
 * through symlinks, and lets nothing of the caller's Python in (-I).
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#ifndef LT_PYTHON
#error "LT_PYTHON is the name of the interpreter in bin/"
#endif

static char start[] =
	"import sys; from layertee.cli.main import main; sys.exit(main())";

static int fail(const char *what)
{
	fprintf(stderr, "layertee: %s: %s\n", what, strerror(errno));
	return 127;
}

int main(int argc, char **argv)
{
	const char *self = (const char *)getauxval(AT_EXECFN);
	char path[PATH_MAX + sizeof(LT_PYTHON)], *slash;
	char **args;
	int i;

	if (self == NULL || realpath(self, path) == NULL)
		return fail(self ? self : "who am I");
	slash = strrchr(path, '/');
	strcpy(slash + 1, LT_PYTHON);
	args = calloc((size_t)argc + 4, sizeof(*args));
	if (args == NULL)
		return fail("memory");
	args[0] = path;
	args[1] = "-I";
	args[2] = "-c";
	args[3] = start;
	for (i = 1; i < argc; i++)
		args[i + 3] = argv[i];
	execv(path, args);
	return fail(path);
}
