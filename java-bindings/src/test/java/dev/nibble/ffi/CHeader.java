// SPDX-License-Identifier: Apache-2.0
package dev.nibble.ffi;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * What {@code nibble.h} declares, read by a parser that knows the few forms that header uses and
 * refuses everything else, so that a new form cannot slip past the comparison unseen.
 *
 * @param constants names of enum constants and numeric macros
 * @param structs names of the structs that have members, with the members' names
 * @param functions the functions by name
 */
record CHeader(
    Set<String> constants, Map<String, List<String>> structs, Map<String, Function> functions) {

  /** A function's return type and parameter types, as C text without {@code const}. */
  record Function(String returnType, List<String> parameterTypes) {}

  private static final Pattern MACRO = Pattern.compile("(?m)^#define (NB_\\w+) \\d+$");
  private static final Pattern ENUM =
      Pattern.compile("typedef enum (\\w+) \\{([^}]*)\\} \\1;");
  private static final Pattern STRUCT =
      Pattern.compile("typedef struct (\\w+) \\{([^}]*)\\} \\1;");
  private static final Pattern OPAQUE = Pattern.compile("typedef struct (\\w+) \\1;");
  private static final Pattern FUNCTION =
      Pattern.compile("NB_API ([\\w* ]+?)\\b(nb_\\w+)\\(([^)]*)\\);");
  private static final Pattern ENUMERATOR = Pattern.compile("(\\w+)\\s*=\\s*-?\\w+");
  private static final Pattern DECLARATOR =
      Pattern.compile("(?:const )?(\\w+) ?(\\**) ?(\\w+)((?:\\[\\w+\\])*)");

  static CHeader parse(String text) {
    var code = text.replaceAll("(?s)/\\*.*?\\*/", " ");
    var constants = new LinkedHashSet<String>();
    MACRO.matcher(code).results().forEach(match -> constants.add(match.group(1)));
    code = code.replaceAll("(?m)^#.*$", " ").replaceAll("\\s+", " ");

    for (var match : ENUM.matcher(code).results().toList()) {
      for (var enumerator : match.group(2).split(",")) {
        constants.add(groupOf(ENUMERATOR, enumerator.strip(), 1));
      }
    }
    code = ENUM.matcher(code).replaceAll(" ");

    var structs = new LinkedHashMap<String, List<String>>();
    for (var match : STRUCT.matcher(code).results().toList()) {
      var members = new ArrayList<String>();
      for (var member : match.group(2).strip().split(";")) {
        members.add(groupOf(DECLARATOR, member.strip(), 3));
      }
      structs.put(match.group(1), members);
    }
    code = OPAQUE.matcher(STRUCT.matcher(code).replaceAll(" ")).replaceAll(" ");

    var functions = new LinkedHashMap<String, Function>();
    for (var match : FUNCTION.matcher(code).results().toList()) {
      functions.put(
          match.group(2), new Function(typeOf(match.group(1) + " f"), typesOf(match.group(3))));
    }
    var rest = FUNCTION.matcher(code).replaceAll(" ").replaceAll("extern \"C\" \\{|\\}", " ");
    if (!rest.isBlank()) {
      throw new IllegalArgumentException("nibble.h: not understood: " + rest.strip());
    }
    return new CHeader(constants, structs, functions);
  }

  /** A program that prints the value, size or offset of everything declared, a line each. */
  String layoutProgram(String include) {
    var lines =
        constants.stream()
            .map(name -> "  printf(\"%s %%lld\\n\", (long long)%s);".formatted(name, name))
            .collect(Collectors.toCollection(ArrayList::new));
    structs.forEach(
        (struct, members) -> {
          lines.add("  printf(\"%s %%zu\\n\", sizeof(%s));".formatted(struct, struct));
          for (var member : members) {
            lines.add(
                "  printf(\"%1$s.%2$s %%zu\\n\", offsetof(%1$s, %2$s));"
                    .formatted(struct, member));
            lines.add(
                "  printf(\"%1$s.%2$s.size %%zu\\n\", sizeof(((%1$s *)0)->%2$s));"
                    .formatted(struct, member));
          }
        });
    return """
        #include <stddef.h>
        #include <stdio.h>
        #include "%s"
        int main(void) {
        %s
          return 0;
        }
        """
        .formatted(include, String.join("\n", lines));
  }

  private static List<String> typesOf(String parameters) {
    if (parameters.strip().equals("void")) {
      return List.of();
    }
    var types = new ArrayList<String>();
    for (var parameter : parameters.split(",")) {
      types.add(typeOf(parameter.strip()));
    }
    return types;
  }

  private static String typeOf(String declaration) {
    return groupOf(DECLARATOR, declaration, 1) + groupOf(DECLARATOR, declaration, 2);
  }

  private static String groupOf(Pattern pattern, String text, int group) {
    var matcher = pattern.matcher(text);
    if (!matcher.matches()) {
      throw new IllegalArgumentException("nibble.h: not understood: " + text);
    }
    return matcher.group(group);
  }
}
