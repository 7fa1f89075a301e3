"""Tables beside the images: which images belong together, what else is known of them."""

import pytest

from lesionseg.common.errors import InputError
from lesionseg.download.side_tables import read_side_tables
from lesionseg.formats import groups, metadata

IDS = {name: name for name in ("ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4")}


def read(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_side_tables(folder, dict.fromkeys(folder.glob("*.csv"), IDS))


GROUPS = {
    "id first": "id,group\nISIC_1,x\nISIC_2,x\nISIC_3,y\n",
    "as HAM10000 has it": "lesion_id,image_id\nx,ISIC_1\nx,ISIC_2\ny,ISIC_3\n",
    "names of files": "image,group\nISIC_1.jpg,x\nimages/ISIC_2.jpg,x\nISIC_3.png,y\n",
    "semicolons, a byte order mark, Windows": "\ufeffid;group\r\nISIC_1;x\r\nISIC_2;x\r\nISIC_3;y\r\n",
    "tabs and spaces": "id\tgroup\n ISIC_1\tx \nISIC_2\tx\nISIC_3\ty\n",
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_as_they_come(tmp_path, name):
    tables = read(tmp_path, groups=GROUPS[name])
    assert [(image, group.partition(":")[2]) for image, group in tables.groups] == [
        ("ISIC_1", "x"),
        ("ISIC_2", "x"),
        ("ISIC_3", "y"),
    ]
    assert tables.metadata == {}
    assert groups.links(tables.groups) == [("ISIC_1", "ISIC_2")]


def test_two_columns_join_each_on_its_own(tmp_path):
    tables = read(tmp_path, groups="id,lesion,patient\nISIC_1,1,p\nISIC_2,2,p\nISIC_3,2,q\nISIC_4,1,unknown\n")
    assert set(groups.links(tables.groups)) == {("ISIC_1", "ISIC_4"), ("ISIC_2", "ISIC_3"), ("ISIC_1", "ISIC_2")}


def test_unknown_values_stand_alone_and_absent_images_are_counted(tmp_path):
    tables = read(tmp_path, groups="id,group\nISIC_1,\nISIC_2,\nISIC_3,NA\nISIC_4,x\nelse,x\nother,y\n")
    assert groups.links(tables.groups) == []
    assert "1 of 4 images in groups" in tables.notes[0]
    assert "2 rows for images that are not in the data" in tables.notes[0]


def test_metadata_is_kept_and_its_lesions_and_patients_are_groups(tmp_path):
    tables = read(
        tmp_path, HAM10000_metadata="lesion_id,image_id,dx,age\nL1,ISIC_1,nv,40\nL1,ISIC_2,nv,\nL2,ISIC_4,mel,60\n"
    )
    assert tables.columns == ["lesion_id", "dx", "age"]
    assert tables.metadata["ISIC_2"] == {"lesion_id": "L1", "dx": "nv", "age": ""}
    assert groups.links(tables.groups) == [("ISIC_1", "ISIC_2")]


@pytest.mark.parametrize(
    ("cell", "kept"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@SUM(1)", "'@SUM(1)"),
        (" +cmd", "'+cmd"),
        ("-2+3", "'-2+3"),
        ("-", "-"),
        ("+", "+"),
        ("-3.5e-2", "-3.5e-2"),
        ("+12,5%", "+12,5%"),
        ("a=b", "a=b"),
    ],
)
def test_no_cell_is_a_formula(tmp_path, cell, kept):
    tables = read(tmp_path, metadata=f'id,=column,site\nISIC_1,1,"{cell}"\n')
    assert tables.metadata["ISIC_1"] == {"'=column": "1", "site": kept}


def test_groups_and_metadata_add_up(tmp_path):
    tables = read(tmp_path, groups="id,group\nISIC_1,x\nISIC_2,x\n", metadata="id,sex\nISIC_1,female\nISIC_3,male\n")
    assert tables.metadata == {"ISIC_1": {"sex": "female"}, "ISIC_3": {"sex": "male"}}
    assert len(tables.notes) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,group\nfoo,x\n", "no column holds ids"),
        ("id\nISIC_1\n", "at least one more"),
        ("", "found the columns nothing"),
        ("id,group\nISIC_1\n", "row 2 does not have 2 fields"),
        ("id,,group\nISIC_1,,x\n", "all named"),
        ("ISIC_1,x\nISIC_2,x\n", "first line has the id ISIC_1"),
        (b"id,group\nISIC_1,caf\xe9\n", "UTF-8"),
        (b"\xff\xfei\0d\0", "UTF-8"),
        (b"id,group\nISIC_1,\0\n", "binary"),
        ('id,group\nISIC_1,"x\nISIC_2,x\n', "not a table"),
        ("id,group\nISIC_1," + "x" * 200_000, "not a table"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-LFS pointer, not the table"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, groups=text)


def test_the_column_of_ids_is_that_of_the_images_where_lesions_have_the_same_numbers(tmp_path):
    ids = {str(number): str(number) for number in range(1, 9)}
    for lesions, groups_ in (("11223344", 4), ("87654321", 0)):
        rows = (f"{lesion},{image}\n" for image, lesion in enumerate(lesions, 1))
        (tmp_path / "groups.csv").write_text("lesion_id,image_id\n" + "".join(rows))
        tables = read_side_tables(tmp_path, {tmp_path / "groups.csv": ids})
        assert tables.groups == [(str(image), f"lesion_id:{lesion}") for image, lesion in enumerate(lesions, 1)]
        assert len(groups.links(tables.groups)) == groups_


@pytest.mark.parametrize("column", ["patient", "Patient ID", "patientNr", "LESION_ID", "lesion_number", "Subject-No"])
def test_lesions_and_patients_group_however_the_column_spells_them(tmp_path, column):
    tables = read(tmp_path, metadata=f"image,{column},age\nISIC_1,7,40\nISIC_2,7,40\nISIC_3,8,40\n")
    assert groups.links(tables.groups) == [("ISIC_1", "ISIC_2")]


@pytest.mark.parametrize("column", ["lesion type", "patient_age", "case_description", "caseload"])
def test_what_else_is_said_of_lesions_and_patients_is_no_group(tmp_path, column):
    assert not read(tmp_path, metadata=f"image,{column}\nISIC_1,7\nISIC_2,7\n").groups


def test_two_rows_that_differ(tmp_path):
    with pytest.raises(InputError, match="ISIC_1 has two rows that differ"):
        read(tmp_path, metadata="id,sex\nISIC_1,female\nISIC_1,male\n")


def test_what_is_written_is_read(tmp_path):
    assert groups.read(tmp_path) == []
    assert metadata.read(tmp_path) == metadata.Metadata()
    groups.add(tmp_path, [("b", "y"), ("a", "x")])
    groups.add(tmp_path, [("c", "x")])
    assert groups.read(tmp_path) == [("a", "x"), ("b", "y"), ("c", "x")]
    metadata.add(tmp_path, ["sex"], {"b": {"sex": "male"}, "a": {"sex": ""}})
    metadata.add(tmp_path, ["age"], {"c": {"age": "40"}})
    read = metadata.read(tmp_path)
    assert read.columns == ("sex", "age")
    assert [read.value(name, "sex") for name in "abcd"] == ["", "male", "", ""]
    assert read.value("c", "age") == "40"


@pytest.mark.parametrize("module", [groups, metadata])
def test_a_damaged_table_is_named(tmp_path, module):
    (tmp_path / module.NAME).write_text("id,group,more\na,b\n")
    with pytest.raises(InputError, match=r"run .*download"):
        module.read(tmp_path)


def test_cells_that_no_table_has_are_refused_or_cut_and_never_obeyed(tmp_path, monkeypatch):
    tables = read(tmp_path, a_metadata=f"id,note\nISIC_1,\x1b[2J\u202e{'x' * 5000}\nISIC_2,a\x07b\n")
    note = tables.metadata["ISIC_1"]["note"]
    assert note.startswith(r"\x1b[2J\u202exxx")
    assert note.isprintable()
    assert len(note) < 1100
    assert tables.metadata["ISIC_2"]["note"] == r"a\x07b"
    with pytest.raises(InputError, match="not a table"):
        read(tmp_path, a_metadata=f"id,note\nISIC_1,{'x' * 200_000}\n")
    with pytest.raises(InputError) as caught:
        read(tmp_path, a_metadata=f"id,note\nother,{'x' * 100_000}\n")
    assert len(str(caught.value)) < 1000
    monkeypatch.setattr("lesionseg.download.side_tables.LONGEST_TABLE", 10)
    with pytest.raises(InputError, match="expected a table of at most 10"):
        read(tmp_path, a_metadata="id,note\nISIC_1,x\n")
