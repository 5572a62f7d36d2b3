# Reads what pg_dump writes as SQL, with -v key=…, and writes what the role that owns the schema can
# run of it. That role owns what it makes, and its default privileges give the app its rows: so what
# names other roles is left out, and what only a superuser could make is named on standard error.
#
# In what is written psql refuses its own commands, such as \!, until whoever knows the key allows
# them again.
#
# Ends with 3 if there is no end of a dump, and with 4 for one of several databases.

BEGIN {
    print "\\restrict " key
    others = "^(ACL|DEFAULT ACL|COMMENT OF OTHERS|DATABASE|DATABASE PROPERTIES|SECURITY LABEL|STATISTICS DATA)$"
    supers = "^(EVENT TRIGGER|PUBLICATION|PUBLICATION TABLE|PUBLICATION TABLES IN SCHEMA|SUBSCRIPTION|SUBSCRIPTION TABLE)$"
}

# Rows, as they are.
copying {
    print
    if ($0 == "\\.") copying = 0
    next
}

whole { next }

{ before = line; line = $0 }

before == "--" && /^-- PostgreSQL database cluster dump$/ { several = 1; exit }

before == "--" && /^-- PostgreSQL database dump complete$/ {
    whole = 1
    next
}

# What an entry begins with.
before ~ /^--/ && /^-- ([A-Z][a-z]+ for )?Name: .*; Type: / {
    type = $0
    sub(/^.*; Type: /, "", type)
    sub(/;.*$/, "", type)
    name = $0
    sub(/^.*Name: /, "", name)
    sub(/; Type: .*$/, "", name)
    if (type == "COMMENT" && name ~ /^(DATABASE|EXTENSION|EVENT TRIGGER|PUBLICATION|SUBSCRIPTION) /)
        type = "COMMENT OF OTHERS"
    if (type ~ supers) print "  left out: " type " " name > "/dev/stderr"
    left_out = (type ~ others || type ~ supers)
}

# Before the first entry: settings, and what `--clean` would remove.
type == "" && !/^(SET |SELECT pg_catalog\.set_config\()/ { next }

# Other tablespaces are not here.
/^SET default_tablespace = / { next }

left_out && !/^SET default_table_access_method = / { next }

# An entry may end with this; amid a function's body it is left as it is.
held != "" && (/^$/ || /^ALTER .* OWNER TO /) {
    held = held $0 "\n"
    next
}
held != "" {
    if (!/^(--|SET default_table_access_method = .*)$/) printf "%s", held
    held = ""
}
/^ALTER .* OWNER TO ("([^"]|"")+"|[^" ]+);$/ {
    held = $0 "\n"
    next
}

type == "SCHEMA" { sub(/^CREATE SCHEMA /, "CREATE SCHEMA IF NOT EXISTS ") }

type == "TABLE DATA" && /^COPY .* FROM stdin;$/ { copying = 1 }

{ print }

END {
    if (several) exit 4
    if (!whole) exit 3
}
