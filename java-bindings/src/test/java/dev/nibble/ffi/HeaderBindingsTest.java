// SPDX-License-Identifier: Apache-2.0
package dev.nibble.ffi;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** {@code nibble.h}, the bindings generated from it and the library agree. */
class HeaderBindingsTest {

  private static String header;

  @TempDir private Path work;

  @BeforeAll
  static void readHeaderAndLoadLibrary() throws Exception {
    header = Files.readString(Path.of(System.getProperty("nibble.header")));
    var resource = libraryResource();
    var library = HeaderBindingsTest.class.getResource(resource);
    assertThat(library).as(resource).isNotNull();
    System.load(Path.of(library.toURI()).toString());
  }

  @Test
  void bindingsMatchTheHeader() throws Exception {
    assertThat(HeaderBindings.differences(header, work))
        .as("differences; run scripts/jextract.sh after a change of nibble.h")
        .isEmpty();
  }

  /** Every declaration kind in the header is seen: a parser that skips some proves nothing. */
  @Test
  void everyFunctionOfTheHeaderIsParsed() {
    var declarations = header.lines().filter(line -> line.startsWith("NB_API ")).count();
    assertThat(CHeader.parse(header).functions()).hasSize((int) declarations);
  }

  @Test
  void everyFunctionResolvesInTheLibrary() throws Exception {
    for (var name : CHeader.parse(header).functions().keySet()) {
      var address =
          (MemorySegment) nibble_h.class.getMethod(name + "$address").invoke(null);
      assertThat(address.address()).as(name).isNotZero();
    }
    assertThat(nibble_h.nb_abi_version()).isEqualTo(nibble_h.NB_ABI_VERSION());
  }

  /** The comparison notices each way in which a header can move away from its bindings. */
  @ParameterizedTest
  @MethodSource("changes")
  void changedHeaderIsNoticed(String text, String replacement, String named) throws Exception {
    assertThat(header).contains(text);
    var changed = header.replace(text, replacement);
    assertThat(HeaderBindings.differences(changed, work))
        .isNotEmpty()
        .anySatisfy(difference -> assertThat(difference).contains(named));
  }

  static Stream<Arguments> changes() {
    return Stream.of(
        // text of the header, what replaces it, what the difference must name
        arguments("#define NB_MAX_RANK 4", "#define NB_MAX_RANK 5", "NB_MAX_RANK"),
        arguments("NB_INTERNAL = 5", "NB_INTERNAL = 6", "NB_INTERNAL"),
        arguments("NB_INTERNAL = 5", "NB_INTERNAL = 5, NB_NEW = 6", "NB_NEW"),
        arguments("int32_t rank;", "int64_t rank;", "size of nb_tensor.rank"),
        arguments("int32_t rank;", "int32_t rank; int32_t more;", "member of nb_tensor more"),
        arguments("  int64_t start;\n  int64_t rows;", "  int64_t rows;\n  int64_t start;",
            "offset of nb_sequence.start"),
        arguments("NB_API const char *nb_version(void);", "", "function nb_version"),
        arguments("NB_API const char *nb_version(void);",
            "NB_API const char *nb_version(void);\nNB_API nb_status nb_new(int32_t a);",
            "function nb_new"),
        arguments("int32_t nb_available_threads(void)", "int64_t nb_available_threads(void)",
            "type of nb_available_threads"),
        arguments("nb_context_threads(const nb_context *context)",
            "nb_context_threads(int64_t context)", "descriptor of nb_context_threads"));
  }

  @Test
  void unknownFormsAreRefused() {
    var changed = header + "\ntypedef int (*nb_callback)(int);\n";
    assertThatThrownBy(() -> CHeader.parse(changed)).hasMessageContaining("not understood");
  }

  private static String libraryResource() {
    var arch = System.getProperty("os.arch");
    return "/META-INF/native/linux-%s/libnibble.so"
        .formatted(arch.equals("amd64") ? "x86_64" : arch);
  }
}
